"""The processes: dealer, party and coordinator. They never import each other."""

"""`masque doctor`: whether a host is ready for its first job, and what to do where it is not."""

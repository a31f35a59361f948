"""What a user of Masque calls: the SDK, and the command line on top of it.

profile, services      who I am, where the services are, connections to them
sharing, datasets      data's way to the parties; what they hold
planning               what a job will cost
jobs, opening          submit, watch, cancel; the result, unsealed and joined
model, scikit, export  the model in the owners' units; scikit-learn, files
local, processes       all services on this machine
console, commands      the command line (`masque.client.app`)
"""

import masque.wire  # noqa: F401 - before grpc, whose settings it chooses

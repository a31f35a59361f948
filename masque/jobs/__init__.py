"""What is to be computed, who agreed to it, and how far it is: pure, without network or clock.

Read in this order: `document` (YAML with line numbers), `complaints` (errors in words), `spec` (the
job file), `rules` (what fits together inside one file), `bound` (a job tied to data sets, parties
and keys; its digest), `fit` (does the data fit the job), `policy` (what a party allows), `ledger`
(what a party has disclosed), `record` (progress), `states` (how state machines are
written), `conducting` (life of a job at the coordinator), `computing` (at a party).
"""

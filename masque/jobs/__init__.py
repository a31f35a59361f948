"""What is to be computed, who agreed to it, and how far it is: pure, without network or clock.

Read in this order:

    document               YAML with line numbers
    fields, complaints     what is wrong with a file, in words
    section, layers        what sections are made of; the layers of a network
    models, spec           what is trained and how; the job file
    rules, networks        what must fit together inside it
    fit                    do the data sets fit the job and each other
    bound, differences     a job tied to data sets, parties and keys; its digest; two compared
    held                   do the parties hold what a job names
    policy                 what a party allows
    chain, ledger          what a party has disclosed, in lines that nobody changes unseen; the one
                           module here that touches a disk
    record                 progress, as streamed to those who watch
    states                 how state machines are written here
    conducting, computing  the life of a job at the coordinator, and at a party
"""

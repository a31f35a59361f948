"""The core: arithmetic on secrets, and the interpreters that run it.

Blocks at two doors only (`doors`), knows no network. The modules in order, each using only those
above it:

    types, kernels, blocks      names for arrays; inner loops; matrix products in blocks
    ring, packing               products modulo 2^64; bits as they travel
    prg, sharing                streams of randomness; additive shares
    scaling, comparison, trig   public arithmetic on opened values: divide, compare, waves
    fits, bilinear              tables: smooth functions as Fourier sums; products of all kinds
    graph, secret, functions    a block of operations; writing one on `Secret` values
    trace, program              tracing blocks from shapes; calling them in training rounds
    correlations                what is dealt for each operation, and the law it obeys
    doors, machine              what interpreters are given, and what they have in common
    plain, dealer, party, cost  the interpreters
    inprocess, warm             all parties in one process; compiling the kernels ahead
"""

"""Data's way in: CSV or Parquet and a schema, encoded columns, shares, and a party's store of them.

In the order in which they build on one another:

table          what everybody may know about a data set: its size, columns, public ranges
faults         how a fault is told: file, row, line, column, value, cure
columns        what a schema says of one column and of the label
schema_file    the schema's YAML, every key with its line
schema         the whole schema
blocks         slices of rows, and what every reader promises
locate         the line of a row, for messages
csv_files      CSV in bounded memory
parquet_files  Parquet in bounded memory
readers        opening a file, whichever it is
cells          numbers and categories, every one checked
encode         columns to fixed point, and back
identifiers    one digest of an ordered identifier column, to be compared under MPC
shares         a file to one stream of share chunks for each party
disk           private, durable files
pages          their encryption
commitments    what a party can later be held to, of a share
commitments    what a party can later be held to, of a share
upload         one upload on its way into a store
dataset        a stored data set, opened for reading
spool          rows in a file without a name
sealed, kept   small files encrypted; models kept as shares
rotation       a new key for all of it
spool          rows in a file without a name
sealed, kept   small files encrypted; models kept as shares
rotation       a new key for all of it
deletions      data sets that have gone and are not yet in the ledger
store          a party's own shares: whole data sets or nothing
partitioning   do these data sets fit together, by rows or by columns?
draft          a first schema for a file
bundled        scikit-learn's small data sets as if they came from hospitals
"""

"""Data's way in: CSV or Parquet and a schema, encoded columns, shares, and a party's store of them.

table         what everybody may know about a data set: its size, columns, public ranges
schema        the owner's small YAML file: column, type, range or categories, label
readers       CSV and Parquet in bounded memory, every fault named by file, row and column
encode        columns to fixed-point numbers, and back
identifiers   one digest of an ordered identifier column, to be compared under MPC
shares        a file to one stream of share chunks for each party
store         a party's own shares on disk
partitioning  do these data sets fit together, by rows or by columns?
bundled       scikit-learn's small data sets as if they came from hospitals
"""

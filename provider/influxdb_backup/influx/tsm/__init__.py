"""TSM, the file format of InfluxDB's shards: bytes and arrays in, arrays and bytes out, no I/O. Needs numba."""

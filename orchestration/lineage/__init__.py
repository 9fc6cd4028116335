"""What made an output: the record, the code version, the audit."""

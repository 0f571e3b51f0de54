"""The outside of records: the database."""

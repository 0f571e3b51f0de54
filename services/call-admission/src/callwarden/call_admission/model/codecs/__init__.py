"""The model as bytes and protobuf messages."""

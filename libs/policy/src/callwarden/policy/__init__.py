"""The SecurityPolicy model: validated, merged, compiled into one immutable snapshot."""

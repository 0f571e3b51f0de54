"""RFC 3261 without a socket: messages, transactions, dialogs, digest."""

"""Where an audit looks: files, a cluster by kubectl, a running system."""

"""The checks of a deployment, as pure functions of the objects found. Their table is in audit.deployment."""

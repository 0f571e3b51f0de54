"""From the global settings of a Mizu VoIP server to a SecurityPolicy."""

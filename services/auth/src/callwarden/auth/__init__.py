"""Who is calling: digest verification over encrypted secrets."""

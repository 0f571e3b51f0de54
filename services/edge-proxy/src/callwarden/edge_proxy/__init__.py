"""The SIP edge: screens, challenges, relays and cuts calls."""

"""Pure domain words: verdicts, reasons, money, phone numbers, identifiers, clocks."""

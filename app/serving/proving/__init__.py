"""Anyone's files, proved: what they say they are, and whether painting that again gives their pixels."""

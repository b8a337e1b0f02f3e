"""What may be wrong with a studio, looked for and, where that can be done without guessing, put right."""

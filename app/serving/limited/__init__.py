"""Processes that read strangers' files: limited, watched and replaced, so that what a file breaks is one of them."""

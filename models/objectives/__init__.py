"""What training minimises, and how."""

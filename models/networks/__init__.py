"""Networks: mapping, synthesis and discriminators."""

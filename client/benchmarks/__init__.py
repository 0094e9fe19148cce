"""What a hospital can time on its own machine before it takes part."""

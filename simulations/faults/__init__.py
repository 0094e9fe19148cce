"""What goes wrong in a federation, made to happen: processes killed, hospitals that answer nonsense or not at all."""

"""Plans and the drivers that answer them; what every room stands on."""

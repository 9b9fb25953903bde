"""What a gateway runs of routing: declared rules, what is expected of a prompt, and the choice. numpy at most."""

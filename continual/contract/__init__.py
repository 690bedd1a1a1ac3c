"""What a mitigation is: the types it sees, the hooks it may have, how its name finds its class. No torch, no ray."""

"""The sending of webhooks: where they may go, one delivery, and the sender that keeps at it."""

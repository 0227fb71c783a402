"""What a gateway keeps: events, histories, lists, items and tombstones, behind one interface."""

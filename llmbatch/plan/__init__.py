"""Planning: requests with token ids in; an order, duplicates and misfits out. Pure: no input or output, no clock."""

"""Operators: fields -> hook -> one job -> ids and counts. Import them from their modules."""

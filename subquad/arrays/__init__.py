"""What every floor stands on: namespaces, outward rounding, checked scalars, lazy values."""

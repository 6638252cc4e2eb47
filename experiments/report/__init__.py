"""What is made of records: findings in words, tables, charts, and the page that shows them."""

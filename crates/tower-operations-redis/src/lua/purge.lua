-- ARGV: prefix, now, limit. Answers how many went.
writable()
return sweep(ARGV[2], ARGV[3])

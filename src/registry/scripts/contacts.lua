-- contacts.lua: replaces the contact details of a node's phones (address, round trip, expiry).
-- ARGV  1 node  2 generation  3 mode (part|replace)  4 number of this report
--       5 how many there are (in mode replace, which ends a row of parts), then extension, JSON pairs
-- reply { 'ok' } | { 'fenced' } | { 'unknown' }
-- Needs: fencing tables
local node, generation, mode, number = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local bad = fenced(node, generation)
if bad then return { bad } end
local total = mode == 'replace' and tonumber(ARGV[5]) or nil
-- If a part was lost, the next report repairs it: no decision depends on contact details.
replace_table_in_parts(ns .. ':contacts:' .. node, generation .. ':' .. number, total, 6)
return { 'ok' }

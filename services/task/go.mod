module github.com/shallot-net/shallot/services/task

go 1.26.0

replace github.com/shallot-net/shallot/proto => ../../proto
replace github.com/shallot-net/shallot/kit => ../../kit

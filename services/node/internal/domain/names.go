package domain

// Names in the routing table, which discovery gives providers: every one has the first, and one for each type of task that it takes.
const (
	NameProvider   = "role/provider"
	nameTypePrefix = "type/"
)

// NameOfType is the name of those that take tasks of a type.
func NameOfType(task string) string { return nameTypePrefix + task }

// Package config loads the configuration of a process: defaults in its struct, then a YAML file, then the
// environment, then flags, the later over the earlier. Nothing unknown is ignored.
//
// A leaf field is named by its `koanf` tag and explained by its `help` tag; nested structs give dotted keys,
// embedded ones none of their own. `secret:"true"` keeps a value out of listings. Leaves are strings, booleans,
// numbers, time.Duration ("2s"), Size ("64MiB"), whatever unmarshals text, and lists of these, comma separated.
package config

package pgstore

import (
	"github.com/shallot-net/shallot/kit/fault"
)

// Settings say where a service keeps its state; embed it in the settings of one that has any, and ask Check in their Validate.
type Settings struct {
	Store        string `koanf:"store" help:"where this service keeps its state: empty for files in the home, or postgres://USER@HOST:PORT/DATABASE?sslmode=verify-full&sslrootcert=FILE, which several replicas can share"`
	PasswordFile string `koanf:"store_password_file" help:"file whose first line is the password for store; it is read for each connection"`
}

// Check finds what is wrong without asking a server.
func (s *Settings) Check() error {
	if s.Store == "" {
		if s.PasswordFile != "" {
			return fault.InvalidArgument("CONFIG_INVALID", "store_password_file is for a PostgreSQL, and store names none: give both or neither")
		}
		return nil
	}
	return Config{URL: s.Store, PasswordFile: s.PasswordFile}.Check()
}

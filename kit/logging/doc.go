// Package logging makes the suite's loggers and keeps identities and addresses out of them: redacting
// helpers for what is known to be one, and a guard over every line for what slipped through.
package logging

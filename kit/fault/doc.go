// Package fault is the one typed error of the suite: it crosses gRPC as a status with an
// errdetails.ErrorInfo and comes back as the same Go error.
package fault

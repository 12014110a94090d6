// Package brokertest is a network of brokers in memory, for tests of the services that call them: the real contract over
// real gRPC, without libp2p. Directed events wait for the receiving service, gossip floods whoever is connected, signatures
// are real, connections can be cut, brokers stopped and started again.
package brokertest

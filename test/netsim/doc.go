// Package netsim is a network of nodes in virtual time: the code of discovery, metric and a consumer's placement as nodes run it,
// over a network that is a model. It answers what a machine cannot be asked with real processes: what nodes say and know where there
// are thousands of them, coming and going.
//
// Real are the services' domain and app layers, their clocks (testing/synctest makes time virtual), announcements as they are
// encoded, signed and checked. A model are connections (everybody can dial everybody, a hop takes 40 ms, nothing is lost), libp2p's
// connection manager (the least it does: above the high mark it cuts at random), and gossipsub (see gossip.go). There are no
// tasks, only their durations and places.
package netsim

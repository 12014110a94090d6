// Command shallot-node is the façade that users call, and joins the node's other services.
package main

import (
	"github.com/shallot-net/shallot/kit/lifecycle"
	"github.com/shallot-net/shallot/services/node/internal/run"
)

func main() { lifecycle.Main(run.Process, run.Main) }

// Command standin stands for a process of a node in tests: see clitest.Main.
package main

import "github.com/shallot-net/shallot/cli/internal/clitest"

func main() { clitest.Main() }

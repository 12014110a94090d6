package main

import (
	"fmt"
	"os"

	"github.com/shallot-net/shallot/test/internal/floor"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "floor-child" {
		floor.Child(os.Args[2], os.Args[3], os.Args[4], os.Args[5] == "true")
		return
	}
	for _, e := range []bool{false, true} {
		fmt.Println(floor.Run(e, 300, 1000))
	}
}

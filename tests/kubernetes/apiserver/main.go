// A Kubernetes API server without nodes and pods, for tests: the generic control plane of k8s.io/kubernetes, with
// custom resources, CEL, server-side apply, RBAC, events and leases as a cluster has them.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/pkg/controlplane/apiserver/samples/generic/server"
)

func main() {
	os.Exit(cli.Run(server.NewCommand()))
}

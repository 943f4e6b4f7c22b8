// Writes a package's SDK as `pulumi package add` has the official language host do: its generators are those of the
// engine's own module. Arguments: the schema's file, the language, and the folder.
package main

import (
	"encoding/json"
	"log"
	"os"
	"path/filepath"

	gogen "github.com/pulumi/pulumi/pkg/v3/codegen/go"
	"github.com/pulumi/pulumi/pkg/v3/codegen/python"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

func main() {
	text, err := os.ReadFile(os.Args[1])
	must(err)
	var spec schema.PackageSpec
	must(json.Unmarshal(text, &spec))
	loader := schema.NewPluginLoader(nil)
	pkg, err := schema.ImportSpec(spec, nil, loader, schema.ValidationOptions{})
	must(err)
	pkg.SupportPack = true
	var files map[string][]byte
	switch language := os.Args[2]; language {
	case "go":
		files, err = gogen.GeneratePackage("pulumi", pkg, nil)
	case "python":
		files, err = python.GeneratePackage("pulumi", pkg, nil, loader)
	default:
		log.Fatalf("no SDK is made for %s here", language)
	}
	must(err)
	for name, content := range files {
		file := filepath.Join(os.Args[3], name)
		must(os.MkdirAll(filepath.Dir(file), 0o755))
		must(os.WriteFile(file, content, 0o644))
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

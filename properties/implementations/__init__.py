"""One file per implementation, all behind one face (`impl.Adapter`); `registry` knows them by name."""

"""One file per implementation, all behind one face (`subject.Adapter`); `registry` knows them by name."""

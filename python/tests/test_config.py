"""The configuration as plugins see it."""

import copy
import unittest

from plugincore.configfile import Config


class ConfigTest(unittest.TestCase):
    def setUp(self):
        self.config = Config({"paths": {"plugins": "/p"}, "SSL": {"Enabled": True}, "name": "x"})

    def test_keys_are_attributes_at_both_levels(self):
        self.assertEqual(self.config["paths"]["plugins"], "/p")
        self.assertEqual(self.config.paths.plugins, "/p")
        self.assertEqual(self.config["paths"].plugins, "/p")

    def test_names_match_in_any_letter_case(self):
        for section in ("ssl", "SSL", "Ssl"):
            self.assertIs(self.config[section]["enabled"], True)
            self.assertIs(getattr(self.config, section).ENABLED, True)
            self.assertIn(section, self.config)
            self.assertIsNotNone(self.config.get(section))

    def test_an_exact_spelling_wins(self):
        config = Config({"A": 1, "a": 2})
        self.assertEqual((config["A"], config["a"]), (1, 2))

    def test_what_is_missing_is_an_ordinary_error(self):
        with self.assertRaises(KeyError):
            self.config["cors"]
        with self.assertRaisesRegex(AttributeError, "cors"):
            self.config.cors
        self.assertIsNone(self.config.get("cors"))
        self.assertEqual(self.config.get("cors", 7), 7)
        self.assertFalse(hasattr(self.config.paths, "documents"))
        self.assertNotIn("cors", self.config)
        self.assertNotIn(3, self.config)

    def test_a_section_that_is_added_has_attributes_too(self):
        self.config.mine = {"depth": {"of": 2}}
        self.assertEqual(self.config["mine"].depth.of, 2)

    def test_a_key_named_like_a_method_is_reached_by_index(self):
        config = Config({"items": "mine"})
        self.assertEqual(config["items"], "mine")
        self.assertEqual(list(config.items()), [("items", "mine")])

    def test_a_copy_is_whole(self):
        copied = copy.deepcopy(self.config)
        self.assertEqual(copied, self.config)
        self.assertIsNot(copied.paths, self.config.paths)


if __name__ == "__main__":
    unittest.main()

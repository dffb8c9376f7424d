# Copyright (c) 2026 The portbuild.cluster authors
# GNU General Public License v3.0-or-later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Random faults, one after the other and several at once, while a tree is built again and again.

Afterwards every package must be in the state that an undisturbed run gives, and nothing may be left over.
"""
